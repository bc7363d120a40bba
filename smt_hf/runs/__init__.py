"""What a run is and what it leaves: its description, its record, its folder. Nothing here trains."""
