"""Times of the calendar and of the day, as people write them: moments, zones, send windows."""
