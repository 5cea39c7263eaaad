from deploy.audit import report

SOUND = {"name": "numpy", "version": "2.4.6", "vulns": []}
UNKNOWN = {"name": "onnxruntime", "skip_reason": "not found"}
FAULTY = {
    "name": "jinja2",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}],
}


def test_a_known_vulnerability_fails_the_audit_and_names_the_fixed_version(capsys):
    assert report([SOUND, FAULTY]) == 1
    assert "jinja2 1.0: PYSEC-1, fixed in 1.1" in capsys.readouterr().out


def test_packages_that_could_not_be_checked_are_named_and_not_counted_as_checked(capsys):
    assert report([SOUND, UNKNOWN]) == 0
    shown = capsys.readouterr()
    assert "NOT CHECKED: onnxruntime" in shown.err
    assert "1 packages checked, 0 of them with known vulnerabilities" in shown.out
