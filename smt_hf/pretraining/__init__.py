"""Learning without recurrence: the teacher, the objectives and the loop."""
