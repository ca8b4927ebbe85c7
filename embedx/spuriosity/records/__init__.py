"""What the steps leave in the folder of an analysis: panels, gaps, tunings, sensitivities."""
