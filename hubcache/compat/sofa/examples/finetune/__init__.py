"""The modules of SOFA's fine-tuning functions, called as they were there; nothing is defined here."""
