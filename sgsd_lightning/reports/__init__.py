"""Pictures and pages from a run's logs. Needs the extra `report`."""
