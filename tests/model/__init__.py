"""A model of the protocol in Promela, checked by spin."""
