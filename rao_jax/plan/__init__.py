"""What a run needs on chips that are not here: memory, work and least time of its programs. See launch/plan.py."""
