"""What the steps leave on disk: discovery, panels, ranking, gaps, tunings, flags, sensitivities; and all of it together."""
