"""What the steps leave on disk: discovery, panels, rankings, gaps, tunings, flags, sensitivities; all together."""
