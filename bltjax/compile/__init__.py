"""Programs compiled for chips that are not here: their memory, their collectives, a roofline."""
