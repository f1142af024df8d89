"""The picture of a sweep: `sweep_plot.py`. Other pictures of what-ifs are in `plots.py`."""
