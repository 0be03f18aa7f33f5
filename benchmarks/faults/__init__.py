"""Real faults on real recordings: what the statistics see of them, and after how many samples."""
