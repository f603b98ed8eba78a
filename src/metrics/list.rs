//! The list of all metrics: docs/metrics.md is made of it, and the dashboard and the alerts are held against it.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>: base units, `_total` for counters, a moment as
//! `_timestamp_seconds` in Unix time. Every label has a bounded number of values.

use super::metric::{Kind, Label, Metric, Subject, Unit, subjects};

const CODE: Label = Label(
    "code",
    "`CKR_…` as PKCS#11 has it, or one of our own words, such as `SIGNATURE_WRONG`; 16 of a vendor's own codes, and \
     `CKR_VENDOR_DEFINED (other)`",
);
const DAEMON: Label = Label("daemon", "daemons that share the ledger, by their names");
const HAPPENED: Label = Label("happened", "`true`; `false`: it was tried again");
const DAYS: Label = Label("days", "within so many: `7` or `30`");
const DESTINATION: Label = Label("destination", "destinations of the configuration");
const ISSUER: Label = Label("issuer", "issuers of the configuration");
const KEY: Label = Label("issuer", "issuers of the configuration; `audit` for the audit key");
const OPERATION: Label =
    Label("operation", "`cacerts`, `csrattrs`, `simpleenroll`, `simplereenroll`; `other`: no operation of EST");
const PORT: Label = Label("port", "`grpc`, `socket`, `http`, `est`");
const TLS_PORT: Label = Label("port", "`grpc`, `est`");
const PROFILE: Label = Label("profile", "profiles of the configuration");
const REASON: Label = Label("reason", "as in the protocol's ErrorInfo");
const CONNECTION_REASON: Label = Label(
    "reason",
    "`handshake` (it failed), `silent` (nothing came in time), `crowded` (idle, and made room for another), `limit` (too many, \
     all in use), `revoked` (its certificate is revoked or has expired), `accept` (the system gave none)",
);
const REPLAY: Label = Label("replay", "`false`; `true`: asked for again, and the same as before");
const HANDSHAKE_RESULT: Label = Label(
    "result",
    "`ok`; `no_certificate` (the client showed none), `unknown_ca` (its certificate is of another CA), `expired`, `revoked`, \
     `bad_certificate` (unfit otherwise), `refused_ours` (the client does not trust the daemon's), `no_tls` (something else was \
     spoken), `incompatible` (no common version or cipher), `hung_up`, `silent` (not done in time), `crowded` (made room for \
     another), `other`",
);
const RESULT: Label =
    Label("result", "`right`, `wrong`, `malformed` (a typing error), `limited` (not looked at, after too many)");
const SINK: Label = Label("sink", "`file`, `syslog`");
const STATION: Label = Label("station", "`<line>/<station>` of the 256 that were here last; `other`: the rest, summed");
const ANY_STATION: Label =
    Label("station", "`<line>/<station>` of 256 at most; `other`: the rest; `none`: devices that ask by themselves");
const STATUS: Label = Label("status", "the HTTP status");
const STEP: Label = Label(
    "step",
    "`queue` (its turn among the stations), `verify` (CSR and proof of possession), `reserve` (the serial number, durable), \
     `hsm_wait`, `sign` (the HSM's call), `check` (our look at its signature), `record` (the certificate, durable)",
);
const TOKEN: Label = Label("token", "the HSM token's label, or what else the key's URI calls it by");
const COMPONENT: Label = Label("component", "as in `/readyz`");
const ORDER: Label = Label("order", "open orders, 256 at most: those that are used first; `(other)`: the rest, summed");
const ORDER_STATE: Label =
    Label("state", "`open`, `scheduled`, `paused`, `incomplete` (its list of devices), `complete`, `expired`");
const VERSION: Label = Label("version", "the daemon's version");

subjects! {
    "State" {
        Gauge READY "ready" Flag [] "1 when the daemon issues certificates";
        Gauge OBSTACLE "obstacle" Flag [COMPONENT]
            "1 for each component that keeps the daemon from issuing; absent for the others";
        Gauge DEGRADED "degraded" Flag [COMPONENT]
            "1 for each component with a fault that keeps nothing from being issued, yet; absent for the others";
        Gauge BUILD_INFO "build_info" Flag [VERSION] "Always 1; which version of the daemon this is";
        Gauge CLOCK "clock_timestamp_seconds" Moment []
            "What the daemon's clock says, to be held against that of Prometheus";
        Gauge CLOCK_PLAUSIBLE "clock_plausible" Flag [] "0 when the clock cannot be right, going by the ledger";
    }
    "Certificates" {
        Counter CERTIFICATES "certificates_total" Number [PROFILE REPLAY] "Certificates sent to stations and devices";
        Counter CERTIFICATES_CONFIRMED "certificates_confirmed_total" Number []
            "Certificates that their devices have taken";
        Counter CERTIFICATES_SCRAPPED "certificates_scrapped_total" Number []
            "Certificates whose devices are scrap";
        Counter CERTIFICATES_REVOKED "certificates_revoked_total" Number [] "Certificates revoked";
        Counter POSSESSION_PROOFS "possession_proofs_total" Number [ISSUER REPLAY]
            "Proofs of possession of an issuer's key given to operators";
        Histogram ISSUE_DURATION "issue_duration_seconds" Seconds []
            "From a request's arrival to its durable certificate";
        Histogram STEP_DURATION "issue_step_duration_seconds" Seconds [STEP]
            "One step on the way of a request to its certificate";
        Gauge REQUESTS_IN_FLIGHT "requests_in_flight" Number [] "Requests between reservation and record";
    }
    "Refusals" {
        Counter REFUSALS "refusals_total" Number [REASON] "Requests refused, by reason";
        Counter REFUSED_REQUESTS "refused_requests_total" Number [ANY_STATION REASON]
            "Requests for certificates refused, by station and reason";
        Counter VENDING_GUESSES "vending_guesses_total" Number [RESULT]
            "Vending codes that were shown over EST; wrong and limited ones are guesses";
        Counter SECURITY_RECORDS_LOST "security_records_lost_total" Number [SINK]
            "Records that the security log's file or receiver did not take in time";
    }
    "Connections" {
        Gauge STREAMS "streams" Number [] "Open Issue streams";
        Counter TLS_HANDSHAKES "tls_handshakes_total" Number [TLS_PORT HANDSHAKE_RESULT]
            "TLS handshakes with clients, by what became of them";
        Counter CONNECTIONS_REFUSED "connections_refused_total" Number [PORT CONNECTION_REASON]
            "Connections refused, or ended before they had done anything";
        Counter EST_REQUESTS "est_requests_total" Number [OPERATION STATUS] "Requests over EST";
    }
    "Events" {
        Gauge WATCH_STREAMS "watch_streams" Number []
            "Clients that follow what happens: `birthmark events`, an MES, `journal watch`";
        Counter EVENTS_TOLD "events_told_total" Number [] "Events told to all of them";
        Gauge EVENTS_SEQUENCE "events_told_sequence" Number []
            "The entry that the newest told event is of; with one publisher, what is between it and the entries is its backlog";
    }
    "Stations" {
        Gauge STATION_CONNECTED "station_connected" Number [STATION]
            "Whether a station has a connection; for `other`, how many have";
        Gauge STATION_LAST_CONTACT "station_last_contact_timestamp_seconds" Moment [STATION]
            "When a station made its last call; absent before the first since the start";
        Counter STATION_CERTIFICATES "station_certificates_total" Number [STATION]
            "Certificates given to a station, for the first time or again";
        Counter STATION_REFUSALS "station_refusals_total" Number [STATION]
            "Requests for certificates refused to a station";
        Gauge STATION_CERTIFICATE_NOT_AFTER "station_certificate_not_after_timestamp_seconds" Moment [STATION]
            "When a station's newest certificate expires";
        Gauge DEVICES_TRIED "devices_tried" Number [ANY_STATION]
            "Devices that a station was the first to try under an order, since the ledger began";
        Gauge DEVICES_FIRST_PASS "devices_first_pass" Number [ANY_STATION]
            "Those of them that got their certificate without having been refused before";
        Gauge PEER_CERTIFICATES_EXPIRING "peer_certificates_expiring" Number [DAYS]
            "Stations, operators and auditors whose newest certificate expires soon";
    }
    "Orders" {
        Gauge ORDERS_OPEN "orders_open" Number [] "Orders that are not closed";
        Gauge ORDER_INFO "order_info" Flag [ORDER PROFILE ORDER_STATE] "Always 1; an order's profile and state";
        Counter ORDER_CERTIFICATES "order_certificates_total" Number [ORDER]
            "Certificates ever recorded under an order, scrapped ones too; it goes on over restarts";
        Gauge ORDER_QUANTITY "order_quantity" Number [ORDER] "How many certificates may be issued under an order";
        Gauge ORDER_ISSUED "order_issued" Number [ORDER] "Certificates recorded under an order, and not scrapped";
        Gauge ORDER_RESERVED "order_reserved" Number [ORDER] "Reservations under an order without a certificate yet";
        Gauge ORDER_CONFIRMED "order_confirmed" Number [ORDER] "Certificates of an order that are confirmed";
        Gauge ORDER_SCRAPPED "order_scrapped" Number [ORDER] "Certificates of an order whose devices are scrap";
        Gauge ORDER_LEFT "order_left" Number [ORDER] "How many more may be issued under an order";
        Gauge ORDER_EXPECTED_END "order_expected_end_timestamp_seconds" Moment [ORDER]
            "When an order is complete if it goes on like the last five minutes; absent if it does not go on";
    }
    "HSM" {
        Histogram HSM_SIGN_DURATION "hsm_sign_duration_seconds" Seconds [KEY TOKEN]
            "One signature by the HSM, without waiting";
        Gauge HSM_QUEUE_DEPTH "hsm_queue_depth" Number [KEY] "Messages that wait for an HSM session";
        Gauge HSM_SESSIONS "hsm_sessions" Number [KEY TOKEN] "HSM sessions that sign; those whose call hangs do not";
        Gauge HSM_SESSIONS_WANTED "hsm_sessions_wanted" Number [KEY TOKEN]
            "HSM sessions that there should be";
        Gauge HSM_SESSIONS_BUSY "hsm_sessions_busy" Number [KEY TOKEN] "HSM sessions that are in a call";
        Gauge HSM_NEEDS_OPERATOR "hsm_needs_operator" Flag [KEY TOKEN]
            "1 while an HSM token stays out until a person has seen to it";
        Gauge HSM_BREAKER_OPEN "hsm_breaker_open" Flag [KEY TOKEN]
            "1 while an HSM token signs nothing";
        Gauge HSM_CALLS_HUNG "hsm_calls_hung" Number [KEY TOKEN]
            "Calls of the HSM that have not returned after half a second and five times as long as usual";
        Counter HSM_CALL_TIMEOUTS "hsm_call_timeouts_total" Number [KEY TOKEN]
            "Calls of the HSM that took longer than the limit";
        Counter HSM_WRONG_SIGNATURES "hsm_wrong_signatures_total" Number [KEY TOKEN]
            "Wrong signatures of the HSM, found before they were used";
        Counter HSM_ERRORS "hsm_errors_total" Number [KEY TOKEN CODE] "Errors of the HSM, by PKCS#11 return code";
        Counter HSM_RETRIES "hsm_retries_total" Number [] "Operators' requests to try HSM tokens again";
    }
    "Ledger" {
        Gauge LEDGER_CERTIFICATES "ledger_certificates" Number [] "Certificates of devices ever recorded";
        Gauge LEDGER_ENTRIES "ledger_entries" Number [] "Entries of the journal";
        Gauge JOURNAL_BYTES "journal_bytes" Bytes [] "Size of the journal";
        Gauge INDEX_LAG "index_lag_records" Number [] "Records and changes that are not in the index yet";
        Gauge DISK_FREE "disk_free_bytes" Bytes [] "Free on the file system of the ledger's folder";
        Gauge DISK_NEEDED "disk_needed_bytes" Bytes []
            "How much must be free there for anything to be issued: ledger.min_free_mib";
        Histogram COMMIT_BATCH_OPERATIONS "commit_batch_operations" Number []
            "Operations that share one sync of the journal";
        Histogram JOURNAL_FSYNC_DURATION "journal_fsync_duration_seconds" Seconds [] "One sync of the journal";
        Gauge JOURNAL_MIRROR "journal_mirror_up" Flag []
            "Whether the mirror of the journal has all entries; absent without a mirror";
        Gauge JOURNAL_DAMAGE "journal_damage" Number [] "Places of the journal that are known to be damaged";
        Counter SCRUB_BYTES "scrub_bytes_total" Bytes [] "Bytes of the journal that the scrub has read and checked";
        Gauge SCRUB_COMPLETED "scrub_completed_timestamp_seconds" Moment []
            "When the whole journal was last read and checked; absent before";
        Gauge CHECKPOINT_LAG "checkpoint_lag_seconds" Seconds []
            "How long the ledger has had entries that no checkpoint covers, 0 if it has none; absent without an audit key";
        Gauge CHECKPOINT_TIME "checkpoint_timestamp_seconds" Moment []
            "When the newest checkpoint was made; absent if there is none";
        Gauge BACKUP_TIME "backup_timestamp_seconds" Moment []
            "When the newest backup was made; absent if there is none";
    }
    "Shared ledger" {
        Histogram LEDGER_LOCK_WAIT "ledger_lock_wait_duration_seconds" Seconds []
            "From asking for a turn in a shared ledger to having it";
        Histogram LEDGER_COMMIT_DURATION "ledger_commit_duration_seconds" Seconds []
            "One append to a shared ledger, with the wait for its copies";
        Counter LEDGER_RETRIES "ledger_retries_total" Number []
            "Appends to a shared ledger that were tried again, as others came before";
        Counter LEDGER_UNKNOWN "ledger_unknown_commits_total" Number [HAPPENED]
            "COMMITs of a shared ledger that were not answered, by what became of them";
        Gauge LEDGER_FOLLOW_LAG "ledger_follow_lag_batches" Number []
            "Batches of a shared ledger that this daemon had not taken in at its last look";
        Gauge LEDGER_DAEMONS "ledger_daemons" Number [] "Daemons that share the ledger and have not ended";
        Gauge LEDGER_DAEMON_AGE "ledger_daemon_age_seconds" Seconds [DAEMON]
            "How long a daemon of the ledger was not heard of";
    }
    "Certificates of CAs and the daemon" {
        Gauge ISSUER_NOT_AFTER "issuer_not_after_timestamp_seconds" Moment [ISSUER]
            "When an issuer's certificate expires";
        Gauge STATION_CA_NOT_AFTER "station_ca_not_after_timestamp_seconds" Moment []
            "When the first certificate of the station CA expires";
        Gauge SERVER_CERTIFICATE_NOT_AFTER "server_certificate_not_after_timestamp_seconds" Moment []
            "When the daemon's own TLS certificate expires";
    }
    "Revocation lists" {
        Gauge CRL_NUMBER "crl_number" Number [ISSUER] "The number of the newest revocation list";
        Gauge CRL_THIS_UPDATE "crl_this_update_timestamp_seconds" Moment [ISSUER]
            "When the oldest of an issuer's newest revocation lists was made";
        Gauge CRL_NEXT_UPDATE "crl_next_update_timestamp_seconds" Moment [ISSUER]
            "When the first of an issuer's newest revocation lists expires";
        Gauge CRL_ENTRIES "crl_entries" Number [ISSUER] "Certificates on an issuer's newest revocation lists";
        Gauge CRL_BYTES "crl_bytes" Bytes [ISSUER] "Size of an issuer's newest revocation lists";
        Counter CRL_FAILURES "crl_failures_total" Number [ISSUER]
            "Revocation lists that could not be made or published";
    }
    "Exports" {
        Gauge DESTINATION_BACKLOG "destination_backlog" Number [DESTINATION]
            "Certificates that wait for a destination's next batch";
        Gauge DESTINATION_BACKLOG_AGE "destination_backlog_age_seconds" Seconds [DESTINATION]
            "How long the oldest of them has waited, 0 if there is none";
        Gauge DESTINATION_WITHDRAWALS "destination_withdrawals" Number [DESTINATION]
            "Withdrawals that wait for a destination's next batch";
        Gauge DESTINATION_UNFIT "destination_unfit" Number [DESTINATION]
            "Live certificates that a destination's batches have left out, or its platform refused";
        Gauge DESTINATION_UNACKNOWLEDGED "destination_unacknowledged_batches" Number [DESTINATION]
            "Batches of a destination that are not acknowledged";
        Gauge DESTINATION_UNACKNOWLEDGED_AGE "destination_unacknowledged_age_seconds" Seconds [DESTINATION]
            "How long ago the oldest of them was cut, 0 if there is none";
        Gauge DESTINATION_HELD "destination_held" Flag [DESTINATION]
            "1 while a destination's batches should be cut or written by the daemon, and cannot be";
    }
}
