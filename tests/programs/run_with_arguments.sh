#!/bin/bash
# Runs a program as a test. Arguments: the program and its own arguments.
exec "$@"
