"""What a world and an experiment can show: yardsticks for results, not for speed."""
