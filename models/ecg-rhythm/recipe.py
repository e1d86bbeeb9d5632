"""Train ecg-rhythm on simulated ECG and write its release, its figures and its card; see ecg_build.py.

pip install -e '.[agent,tools,train]'
python models/ecg-rhythm/recipe.py [--output DIR] [--checkpoint FILE]
"""

from ecg_build import main

if __name__ == "__main__":
    main()
