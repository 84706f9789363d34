"""Published methods of editing, one file a family: what each computes, and nothing of hubedit's own."""
