"""Notes and files of a home as one file, to be kept, moved and put back."""
