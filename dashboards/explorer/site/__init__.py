"""The explore page as files that need no server and no Python: what is computed there, and how the folder is made."""
