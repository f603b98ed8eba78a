-- What PostgreSQL alone knows. Certificates do not compress; rows that are updated all the time stay on their pages.
ALTER TABLE journal ALTER COLUMN frames SET STORAGE EXTERNAL;
ALTER TABLE head SET (fillfactor = 10);
ALTER TABLE orders SET (fillfactor = 10);
ALTER TABLE daemons SET (fillfactor = 10);
