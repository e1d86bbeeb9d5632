"""Build the latency reference, by default into build/ beside this file, which git ignores; see imaging_build.py.

pip install -e '.[agent,tools]'
python models/imaging-latency/recipe.py [--output DIR]
"""

from imaging_build import main

if __name__ == "__main__":
    main()
