"""`python -m image_similarity`: the command line, for a Python that is not the one on the PATH."""
from image_similarity.cli.commands import main

if __name__ == "__main__": main()
