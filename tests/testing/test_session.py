"""What the kit reports: results, declared failures, tables and JSON, as a command and as tests."""

from __future__ import annotations

import io
import json

import pytest
from broken_plugins import SOUND_PARTS, loss, offering, part
from click.testing import CliRunner
from rich.console import Console

from harness.cli import cli
from harness.errors import PluginError, SettingsError
from harness.providers import LossProvider
from harness.testing import Outcome, Session, parametrize_with_checks

NAMELESS = {"names_no_device": "its kernel is written for one device"}
DEVICE = "broken_device:CudaLoss"


def named(session: Session, check: str) -> list[tuple[Outcome, str]]:
    return [(result.outcome, result.reason) for result in session.report().results if result.check == check]


def some(plugin, **declared: str) -> Session:
    return Session(plugin, expected_failures=declared, only=["names_no_device", "describes_its_options"])


class TestDeclaredFailures:
    def test_are_shown_with_their_reason_and_do_not_count(self) -> None:
        session = some(loss(DEVICE), **NAMELESS)
        assert named(session, "names_no_device") == [(Outcome.EXPECTED, NAMELESS["names_no_device"])]
        assert session.report().ok

    def test_may_stand_on_the_card(self) -> None:
        plugin = offering(part(LossProvider, DEVICE), expected_failures={"tried.names_no_device": "so be it"})
        assert named(some(plugin), "names_no_device") == [(Outcome.EXPECTED, "so be it")]

    def test_that_pass_are_errors(self) -> None:
        session = some(loss(), **NAMELESS)
        [(outcome, reason)] = named(session, "names_no_device")
        assert outcome is Outcome.UNEXPECTED
        assert NAMELESS["names_no_device"] in reason
        assert not session.report().ok

    def test_of_a_check_are_not_asked_of_every_part(self) -> None:
        plugin = offering(part(LossProvider, DEVICE), part(LossProvider, "SoundLoss", name="other"))
        session = some(plugin, **NAMELESS)
        assert [outcome for outcome, _ in named(session, "names_no_device")] == [Outcome.EXPECTED, Outcome.PASSED]
        assert session.report().ok

    def test_of_one_part_do_not_excuse_another(self) -> None:
        plugin = offering(part(LossProvider, DEVICE), part(LossProvider, DEVICE, name="other"))
        session = some(plugin, **{"other.names_no_device": "known"})
        assert [outcome for outcome, _ in named(session, "names_no_device")] == [Outcome.FAILED, Outcome.EXPECTED]
        assert not session.report().ok

    @pytest.mark.parametrize("key", ["names_no_devise", "nobody.names_no_device"])
    def test_of_checks_that_do_not_exist_are_refused(self, key: str) -> None:
        with pytest.raises(PluginError, match=rf"'tried' declares that '{key}' fails.*Did you mean"):
            some(loss(), **{key: "why"})


class TestResults:
    def test_what_needs_a_failed_check_is_not_tried(self) -> None:
        found = {result.check: result for result in Session(loss("EndlessGradientLoss")).report().results}
        assert found["keeps_its_contract"].outcome is Outcome.FAILED
        assert "gradient of the loss 'tried'" in found["keeps_its_contract"].reason
        assert found["goes_on_within_an_epoch"].outcome is Outcome.SKIPPED
        assert found["goes_on_within_an_epoch"].reason == "needs keeps_its_contract"

    def test_a_failure_names_what_was_handed_over(self) -> None:
        session = Session(loss("ScalingLoss"), only=["changes_nothing_that_it_is_handed"])
        [result] = session.report().results
        assert "changed in place, in update, what it was handed: embeddings" in result.reason

    def test_a_check_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(SettingsError, match=r"no check 'keeps_contract'. Did you mean 'keeps_its_contract'"):
            Session(loss(), only=["keeps_contract"])

    def test_the_table_holds_every_cell_in_full_and_no_markup_of_a_plugin(self) -> None:
        session = some(loss(DEVICE), **{"names_no_device": "[red]why not[/red]"})
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(session.report().table())
        text = console.export_text()
        assert "[red]why not[/red]" in text
        assert "names_no_device" in text

    def test_json_is_stable_and_complete(self) -> None:
        one, other = (some(loss(DEVICE)).report().to_json() for _ in range(2))
        assert one == other
        values = json.loads(one)
        assert values["ok"] is False
        assert {row["outcome"] for row in values["results"]} == {"passed", "failed"}


class TestCommand:
    def test_an_in_tree_plugin_passes(self) -> None:
        done = CliRunner().invoke(cli, ["check", "tsmem"])
        assert done.exit_code == 0, done.output
        assert "tsmem: " in done.output
        assert "failed" not in done.output

    def test_json_for_machines(self) -> None:
        done = CliRunner().invoke(cli, ["check", "tsmem", "--json", "--check", "describes_its_options"])
        assert done.exit_code == 0
        assert json.loads(done.output) == {
            "ok": True,
            "plugin": "tsmem",
            "results": [{"check": "describes_its_options", "outcome": "passed", "part": "tsmem", "reason": ""}],
        }

    def test_a_failure_is_exit_code_1(self, monkeypatch) -> None:
        session = Session(loss(DEVICE))
        found = session.plugin, session.catalogue, "broken_plugins"
        monkeypatch.setattr("harness.testing.session._plugin_of", lambda name: found)
        done = CliRunner().invoke(cli, ["check", "anything", "--check", "names_no_device"])
        assert done.exit_code == 1
        assert "FAILED" in done.output

    def test_an_unknown_plugin_is_an_error(self) -> None:
        done = CliRunner().invoke(cli, ["check", "tsmen"])
        assert isinstance(done.exception, PluginError)
        assert "Did you mean 'tsmem'" in str(done.exception)


class TestParametrization:
    def bound(self, plugin, **declared: str):
        [values] = [parametrize_with_checks(plugin, expected_failures=declared).args[1]]
        return {check.id: check for check in values}

    def test_a_check_that_passes_passes(self) -> None:
        self.bound(loss())["tried-names_no_device"]()

    def test_a_check_that_fails_fails_the_test(self) -> None:
        with pytest.raises(pytest.fail.Exception, match="names a device"):
            self.bound(loss(DEVICE))["tried-names_no_device"]()

    def test_a_declared_failure_is_expected(self) -> None:
        with pytest.raises(pytest.xfail.Exception, match="one device"):
            self.bound(loss(DEVICE), **NAMELESS)["tried-names_no_device"]()

    def test_a_declared_failure_that_passes_fails_the_test(self) -> None:
        with pytest.raises(pytest.fail.Exception, match="declared to fail"):
            self.bound(loss(), **NAMELESS)["tried-names_no_device"]()

    def test_a_check_that_says_nothing_is_skipped(self) -> None:
        with pytest.raises(pytest.skip.Exception, match="no recipe"):
            self.bound(loss())["plugin-has_a_recipe_that_can_be_used"]()

    def test_every_part_has_its_checks(self) -> None:
        names = set(self.bound(offering(*SOUND_PARTS)))
        assert {"sound-memory-goes_on_within_an_epoch", "sound-transform-treats_every_image_alone"} <= names
        assert "sound-transform-goes_on_within_an_epoch" not in names
