"""Side studies, one file or folder each: the method, the runs, the figure. The folders below import none of them."""
