"""What a person sees of the explorer: one Bokeh document a page, over the computations beside this folder."""
