"""What is wrong with this machine, this account or a load before it is sent: looked at, never changed."""
