"""The primitives, one file a family; a new one is declared in its family's file and nowhere else."""
