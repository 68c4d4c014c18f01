"""Pages and figures: of one run, of runs side by side, of a sweep."""
