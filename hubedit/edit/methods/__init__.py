"""Published methods of editing, one file a family; and sequences of batches for every method."""
