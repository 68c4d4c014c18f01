"""Q-chunking: learning over chunks of actions, from offline data first."""
