"""The self-contained report page: a 3D player with sound, curves and tables in one HTML file."""
