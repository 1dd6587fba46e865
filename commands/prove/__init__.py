"""`make prove`: the recorded answers of a source, loaded under faults and kills."""
