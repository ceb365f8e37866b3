"""The main job on real input: real requests over the bus, each with what is expected of it and what was seen."""
