"""Workers: they own shards, and run the actors that live in them."""
