"""What a run is asked for: parameters, presets, notebooks and their parameter cells."""
