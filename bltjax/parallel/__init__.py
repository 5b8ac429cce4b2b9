"""Meshes, the layout of every parameter, processes and the machine that they run on."""
