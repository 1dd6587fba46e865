"""Where the flows run: the local stack, images, work pools and automations."""
