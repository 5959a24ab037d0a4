"""Reading tasks of the paper: what can be told from activations, by LIT and by rival methods."""
