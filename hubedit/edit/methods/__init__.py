"""The methods, one file a family: `joint` is hubedit's own, the others are published; and what they share."""
