"""Tables: the loader of one task a group, its columns, and their encoding."""
