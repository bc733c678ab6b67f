"""What an AWS account allows, by the ordinary AWS environment. Every call only reads."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from msgspec.structs import replace

from lambdalab.aws.clients import UNRESERVED_FLOOR, Aws, access_errors, is_aws
from lambdalab.doctor.findings import Finding, Verdict, look, ok, refused, warning, wrong
from lambdalab.errors import AccessError
from lambdalab.pricing.costs import load_price_sheet

SOON: Final = timedelta(hours=1)
"""A run may take as long; credentials from the environment are not renewed."""
MOST_SKEW_S: Final = 300
"""AWS refuses requests whose time is further off ("Signature Version 4": five minutes)."""


class Quota:
    """A quota that Service Quotas tells, or else AWS's documented default."""

    def __init__(self, service: str, code: str, what: str, default: float) -> None:
        self.service, self.code, self.what, self.value = service, code, what, default
        self.source = "AWS's documented default"

    def read(self, aws: Aws) -> Finding:
        """Asks for the account's own value, then for AWS's default in this region."""
        asked = {"ServiceCode": self.service, "QuotaCode": self.code}
        try:
            with access_errors(f"quota {self.code}"):
                try:
                    found = aws.service_quotas.get_service_quota(**asked)["Quota"].get("Value")
                except ClientError as error:  # of a quota that was never changed some accounts have the default only
                    if error.response.get("Error", {}).get("Code") != "NoSuchResourceException":
                        raise
                    found = aws.service_quotas.get_aws_default_service_quota(**asked)["Quota"].get("Value")
        except AccessError as error:
            why = refused(self.what, error)
            means = f"taken to be {self.value:,.0f}, {self.source}"
            return warning(self.what, why.found, means, why.next_step or "ask again")
        if found is None:
            return ok(self.what, f"{self.value:,.0f}, {self.source}; Service Quotas has no number for it")
        self.value, self.source = float(found), "Service Quotas"
        return ok(self.what, f"{self.value:,.0f} (Service Quotas {self.code})")


class Account:
    """An account as its checks go on; figures stay None where they could not be read.

    Attributes:
        usable: whether AWS took the credentials; nothing else was asked otherwise.
        unreserved: environments that no function has reserved.
        in_flight: messages of a standard queue that are received and not deleted.
        table_writes: write units a second of a table.
    """

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self.usable = False
        self.unreserved: int | None = None
        # SQS, "Quotas related to queues"; DynamoDB, "Throughput default quotas", which hold for on-demand tables too.
        self.in_flight = Quota("sqs", "L-C491D5A4", "quota in flight", 120_000)
        self.table_writes = Quota("dynamodb", "L-AB614373", "quota table writes", 40_000)

    def identity(self) -> Iterator[Finding]:
        """Looks at region and credentials."""
        yield from look("region", self._region)
        yield from look("credentials", self._credentials)

    def quotas(self, reserving: int) -> Iterator[Finding]:
        """Looks at the quotas.

        Args:
            reserving: how many environments a stack that is not deployed yet will reserve; 0 of one that is.
        """
        yield from look("concurrency", lambda: self._concurrency(reserving))
        yield self.in_flight.read(self._aws)
        yield self.table_writes.read(self._aws)

    def _region(self) -> Iterator[Finding]:
        region: str | None = self._aws.session.region_name
        if region is None:
            yield wrong("region", "none is set", None, "set AWS_REGION, for example us-east-1")
            return
        url = self._aws.lambda_.meta.endpoint_url
        if is_aws(url):
            yield ok("region", region)
        else:
            yield warning(
                "region",
                f"{region} at {urlsplit(url).hostname}",
                "that is not AWS: what stands here is of what answers there",
                "unset AWS_ENDPOINT_URL for AWS",
            )
        yield from look("prices", lambda: [ok("prices", f"sheet of {load_price_sheet(region).date} for {region}")])

    def _credentials(self) -> Iterator[Finding]:
        region: str | None = self._aws.session.region_name
        if region is None:
            return  # said already
        with access_errors("the AWS credentials"):
            credentials = self._aws.session.get_credentials()
        if credentials is None:
            yield wrong(
                "credentials", "none were found", "nothing of the account can be asked",
                "set AWS_PROFILE or AWS_ACCESS_KEY_ID, or sign in",
            )  # fmt: skip
            return
        try:
            temporary = credentials.token is not None  # renews those that can be
        except RuntimeError:  # botocore's, of what has ended and cannot
            yield wrong("credentials", "they have expired", "nothing of the account can be asked", "sign in again")
            return
        with access_errors("the AWS credentials"):
            try:
                answer = self._aws.sts.get_caller_identity()
            except ClientError as error:  # a clock minutes off is refused like a wrong key
                yield from _clock(error.response["ResponseMetadata"]["HTTPHeaders"])
                raise
        self.usable = True
        # botocore tells an expiry, also AWS_CREDENTIAL_EXPIRATION's, by no public name.
        expiry, method = getattr(credentials, "_expiry_time", None), str(credentials.method)
        yield _expiry(str(answer["Arn"]), method, expiry, temporary=temporary)
        yield from _clock(answer["ResponseMetadata"]["HTTPHeaders"])

    def _concurrency(self, reserving: int) -> Iterator[Finding]:
        with access_errors("the account's Lambda settings"):
            limit = self._aws.lambda_.get_account_settings()["AccountLimit"]
        total, self.unreserved = limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]
        left = self.unreserved - reserving
        found = f"{total:,} environments at once in this account and region, {self.unreserved:,} unreserved"
        if reserving and left < UNRESERVED_FLOOR:
            said = wrong(
                "concurrency",
                found,
                f"the stack reserves {reserving}, {UNRESERVED_FLOOR} must stay unreserved: AWS refuses its deployment",
                "deploy with ReservedConcurrency= (empty), or ask for a higher quota (Lambda, Concurrent executions)",
            )
            yield replace(said, needed=reserving + UNRESERVED_FLOOR, there=self.unreserved)
        else:
            yield ok("concurrency", found)


def _expiry(identity: str, method: str, expiry: datetime | None, *, temporary: bool) -> Finding:
    """How long credentials hold; those of a profile or a role are renewed by botocore, others are not."""
    if expiry is None:
        lasts = "temporary, and nothing says until when" if temporary else "they do not expire"
        return ok("credentials", f"{identity}, from {method}; {lasts}")
    left = expiry - datetime.now(UTC)
    minutes = round(left.total_seconds() / 60)
    found = (
        f"{identity}, from {method}; valid until {expiry.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {minutes} more minutes"
    )
    if method == "env" and left < SOON:
        return warning("credentials", found, "a longer run ends when they do", "sign in again before it")
    return ok("credentials", found)


def _clock(headers: Mapping[str, str]) -> Iterator[Finding]:
    if (date := headers.get("date")) is None:
        return
    skew_s = datetime.now(UTC).timestamp() - parsedate_to_datetime(date).timestamp()
    found = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} AWS"
    if abs(skew_s) > MOST_SKEW_S / 5:
        yield Finding(
            check="clock of AWS",
            verdict=Verdict.WRONG if abs(skew_s) > MOST_SKEW_S else Verdict.WARNING,
            found=found,
            means=f"AWS refuses requests {MOST_SKEW_S // 60} minutes off, and waiting times are wrong by as much",
            next_step="set the clock, for example with NTP",
        )
    else:
        yield ok("clock of AWS", found)
