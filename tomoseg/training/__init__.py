"""From annotations to a network and what is known of it."""
