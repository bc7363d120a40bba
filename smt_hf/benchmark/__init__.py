"""Speed, side by side with peers and floors."""
