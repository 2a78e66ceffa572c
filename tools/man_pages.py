"""Manual pages of the command `gradweave`, made from what --help prints."""

import re
import subprocess

# "  --name=VALUE  text" and "  name  text"; lines that go on are indented further.
ROW = re.compile(r"^  (\S(?:.*?\S)?)  +(\S.*)$")


def rows_of(lines):
    """Returns the rows of a table of two columns as pairs, with the lines of a text put together."""
    rows = []
    for line in lines:
        match = ROW.match(line)
        if match:
            rows.append([match.group(1), match.group(2)])
        elif rows and line.startswith("    "):
            rows[-1][1] += " " + line.strip()
    return rows


def escaped(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return "\n".join("\\&" + line if line.startswith(".") else line for line in text.split("\n"))


def emphasized(name):
    """Returns the name of a flag in bold and its value in italics: --name=VALUE, or -o FILE."""
    flag, separator, value = re.fullmatch(r"([^= ]+)([= ]?)(.*)", name).groups()
    return "\\fB%s\\fR%s" % (escaped(flag), separator + "\\fI%s\\fR" % escaped(value) if value else "")


def first_small(text):
    return text[0].lower() + text[1:]


def header(name, version):
    return '.TH "%s" 1 "" "Gradweave %s" "Gradweave"\n' % (escaped(name.upper()), escaped(version))


def page_of_subcommand(text, version):
    """Returns the page of a subcommand. `text` is what `gradweave SUBCOMMAND --help` prints."""
    description, _, flags = text.partition("\nflags\n")
    usage, summary, *details = description.split("\n", 2)
    _, subcommand, arguments = usage.split(" ", 2)
    summary = summary.strip()
    name = "gradweave-" + subcommand
    page = header(name, version)
    page += ".SH NAME\n%s \\- %s\n" % (escaped(name), escaped(first_small(summary)))
    page += ".SH SYNOPSIS\n\\fBgradweave %s\\fR %s\n" % (escaped(subcommand), escaped(arguments))
    page += ".SH DESCRIPTION\n%s.\n" % escaped(summary)
    for paragraph in "".join(details).strip().split("\n\n"):
        if paragraph:
            page += ".PP\n%s\n" % escaped(paragraph)
    if flags:
        page += ".SH OPTIONS\n"
        for flag, help_text in rows_of(flags.split("\n")):
            page += ".TP\n%s\n%s\n" % (emphasized(flag), escaped(help_text))
    return page + '.SH "SEE ALSO"\n\\fBgradweave\\fR(1)\n'


def main_page(text, version):
    """Returns the page of the command. `text` is what `gradweave --help` prints."""
    title, rest = text.split("\n", 1)
    table, _, notes = rest.strip("\n").partition("\n\n")
    name, _, summary = title.partition(": ")
    page = header(name, version)
    page += ".SH NAME\n%s \\- %s\n" % (escaped(name), escaped(summary))
    page += ".SH SYNOPSIS\n\\fBgradweave\\fR \\fICOMMAND\\fR [arguments] [flags]\n"
    page += ".SH COMMANDS\n"
    subcommands = rows_of(table.split("\n"))
    for subcommand, help_text in subcommands:
        page += ".TP\n\\fB%s\\fR\n%s.\n" % (escaped(subcommand), escaped(help_text))
    page += ".SH NOTES\n%s\n" % escaped(notes.strip())
    pages = ", ".join("\\fBgradweave\\-%s\\fR(1)" % escaped(subcommand) for subcommand, _ in subcommands)
    return page + '.SH "SEE ALSO"\n%s\n' % pages


def pages(program):
    """Returns the pages of the command as a dictionary from file name to text: "gradweave-run.1" and so on."""

    def output(*arguments):
        return subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout

    version = output("--version").split()[1]
    text = output("--help")
    found = {"gradweave.1": main_page(text, version)}
    for subcommand, _ in rows_of(text.strip("\n").split("\n\n")[1].split("\n")):
        found["gradweave-%s.1" % subcommand] = page_of_subcommand(output(subcommand, "--help"), version)
    return found
