"""Does it: the queue of runs, agents and their loop, the model gate and the tool gate, metering."""
