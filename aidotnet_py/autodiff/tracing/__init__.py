"""Functions become Programs here: recording, what a traced function read, and whether it is pure."""
