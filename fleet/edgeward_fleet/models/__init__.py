"""The registry: releases and the artifacts that they name."""
