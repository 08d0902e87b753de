"""What the gateway's endpoints stand on."""
