#!/bin/bash
# Runs a program as a test: the program, then its arguments.
exec "$@"
