"""`bltjax fit`: scaling laws of an experiment, or of anyone's table of runs, with intervals."""
