"""Finding files by words and meaning: text out of files, an index beside the database, and what is asked of it."""
