"""The libraries of the system for MODULE.bazel. Bazel 4.2 reads neither of the two files."""

load("//third_party:repositories.bzl", "system_repositories")

def _system_libraries_impl(_ctx):
    system_repositories()

system_libraries = module_extension(implementation = _system_libraries_impl)
